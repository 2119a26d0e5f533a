"""The forms of the admin: fields, validation and error messages. No pages."""
