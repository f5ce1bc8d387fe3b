"""Where ftcloud keeps what it knows: the home folder and the database in it."""
