"""The demonstration: its people, its template, and the server that they are sent to."""
