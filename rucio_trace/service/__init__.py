"""The trace service: registration, search and verification of traces over HTTP. `app.create_app` is the way in."""
