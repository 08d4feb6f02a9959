"""What a coloured version shows of its tiles, and how two versions differ."""
