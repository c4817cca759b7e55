"""The frame of a gate's pages: sessions, sign-in, layout, static files, live streams. A gate adds pages of its own."""
