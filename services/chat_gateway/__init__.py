"""chat_gateway: runs turns. It keeps nothing that can't be rebuilt."""
