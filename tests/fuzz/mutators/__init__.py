"""What changes inputs, by their formats: each takes bytes and gives back others that are near."""
