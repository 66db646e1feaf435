"""OpenAI-compatible servers: what sampler=openai and judge=openai share."""
