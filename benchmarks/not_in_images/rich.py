"""Stands before the `rich` of this environment, which structlog imports where it is installed: 4 MB in each service.

The images of services do not have it; the CLI brings it here.
"""

raise ImportError("services are measured as in their images, which have no rich")
