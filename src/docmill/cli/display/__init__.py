"""What commands show: tables, progress, the live view."""
