# One image for each folder in services/, and `model` for the dev overlay: `make images` builds them all.
# The packages of SERVICE come from build/images/SERVICE, where deploy/images/build.py put exactly what
# constraints.txt locks: the build itself needs no network. The result has an interpreter, these packages and the
# service, and no shell, no package installer and no user but one without rights.
ARG PYTHON_IMAGE=python:3.11-slim
ARG SERVICE

# The interpreter with the shared libraries that it needs: the same layer in every image.
FROM ${PYTHON_IMAGE} AS interpreter
COPY deploy/images/elf.py deploy/images/rootfs.py /build/
RUN python /build/rootfs.py /rootfs

FROM scratch AS libraries
COPY libs /

FROM libraries AS code-config_svc
COPY services/config_svc /config_svc

FROM libraries AS code-session_svc
COPY services/session_svc /session_svc

FROM libraries AS code-chat_gateway
COPY services/chat_gateway /chat_gateway

FROM scratch AS code-model
COPY cli/parley_cli/__init__.py cli/parley_cli/errors.py /parley_cli/
COPY cli/parley_cli/embedded/__init__.py cli/parley_cli/embedded/model_server.py /parley_cli/embedded/

# hadolint ignore=DL3006
FROM code-${SERVICE} AS code

# Imported once inside the root that it will have: a package or a library that is missing there fails the build.
FROM interpreter AS application
ARG SERVICE
ARG VERSION
COPY build/images/${SERVICE} /rootfs/application
COPY deploy/images/elf.py deploy/images/packages.py /rootfs/build/
RUN cp -a /rootfs/application/lib/. /rootfs/usr/local/lib/ \
    && chroot /rootfs python /build/packages.py trim /application/site \
    && chroot /rootfs python /build/packages.py sbom /application/site "${SERVICE}" "${VERSION}" >/sbom.cdx.json
COPY --from=code / /rootfs/application/site/
RUN chroot /rootfs python /build/packages.py compile /application/site "${SERVICE}"

FROM scratch AS image
ARG VERSION
ARG REVISION
ARG PYTHON_IMAGE
COPY --from=interpreter /rootfs /
COPY --from=application /rootfs/application/lib /usr/local/lib
COPY --from=application /sbom.cdx.json /usr/share/sbom/parley.cdx.json
COPY --from=application /rootfs/application/site /usr/local/lib/python3.11/site-packages
ENV PATH=/usr/local/bin LANG=C.UTF-8 LD_LIBRARY_PATH=/usr/local/lib PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PARLEY_VERSION=${VERSION}
WORKDIR /
USER 65532:65532
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.vendor="Parley" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"

FROM image AS run-config_svc
LABEL org.opencontainers.image.title="parley/config-svc" \
    org.opencontainers.image.description="What agents are: agent configs, templates and access, in PostgreSQL"
ENV PARLEY_CONFIG_GRPC_PORT=50052 PARLEY_CONFIG_HEALTH_PORT=50062
EXPOSE 50052 50062
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "servicekit.healthcheck", "PARLEY_CONFIG_"]
ENTRYPOINT ["python", "-m", "config_svc"]

FROM image AS run-session_svc
LABEL org.opencontainers.image.title="parley/session-svc" \
    org.opencontainers.image.description="What was said: sessions and turns, in Redis"
ENV PARLEY_SESSION_GRPC_PORT=50053 PARLEY_SESSION_HEALTH_PORT=50063
EXPOSE 50053 50063
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "servicekit.healthcheck", "PARLEY_SESSION_"]
ENTRYPOINT ["python", "-m", "session_svc"]

FROM image AS run-chat_gateway
LABEL org.opencontainers.image.title="parley/chat-gateway" \
    org.opencontainers.image.description="How agents run: the HTTP and gRPC edges, and the turns"
ENV PARLEY_GATEWAY_GRPC_PORT=50051 PARLEY_GATEWAY_HEALTH_PORT=50061
EXPOSE 8080 50051 50061
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "servicekit.healthcheck", "PARLEY_GATEWAY_"]
ENTRYPOINT ["python", "-m", "chat_gateway"]

FROM image AS run-model
LABEL org.opencontainers.image.title="parley/model" \
    org.opencontainers.image.description="SmolLM2-135M-Instruct behind OpenAI's HTTP API, for trying Parley out"
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "parley_cli.embedded.model_server", "--port", "8000", "--check"]
ENTRYPOINT ["python", "-m", "parley_cli.embedded.model_server", "--port", "8000"]

# hadolint ignore=DL3006
FROM run-${SERVICE}
