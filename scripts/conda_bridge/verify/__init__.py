"""Is what an artifact says of itself true?"""
