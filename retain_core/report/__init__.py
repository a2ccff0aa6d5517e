"""What people read: the study's page, its charts, and the closing lines in the terminal."""
