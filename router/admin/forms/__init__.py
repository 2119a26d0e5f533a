"""The forms of the admin: what may be typed, and what is wrong with it. No pages."""
