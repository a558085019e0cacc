"""What each mutation does to the database, and what each read shows of it."""
