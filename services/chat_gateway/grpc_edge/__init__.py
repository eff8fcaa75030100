"""The gRPC edge: ChatService and RuntimeService."""
