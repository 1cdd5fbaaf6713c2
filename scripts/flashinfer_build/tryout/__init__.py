"""What was built, installed and run as a user would."""
