"""`lf.a2a.v1.A2AService` on the gateway's gRPC port."""
