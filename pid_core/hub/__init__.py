"""Known files on the model hub: what they are, their licences, how they get here. Nothing is loaded here."""
