"""How commands show things: tables, progress, the live view."""
