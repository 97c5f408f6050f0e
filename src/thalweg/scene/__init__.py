"""Objects in space: rays through pixels of their views, chains on their latents' posterior, searched poses; specs of all this."""
