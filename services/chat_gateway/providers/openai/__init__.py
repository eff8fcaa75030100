"""Providers that speak OpenAI's chat completions, in whatever dialect: OpenAI, vLLM, Ollama, llama.cpp, …"""
