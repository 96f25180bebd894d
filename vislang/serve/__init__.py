"""An HTTP server with OpenAI's API, for every model of vislang.

Read ``app.py`` first: it has the routes. ``wire.py`` defines requests and replies, ``images.py`` the only way in which
an image enters, ``remote.py`` the only function that opens a connection, ``engine.py`` the thread that runs the models,
``reader.py`` what the requests to a model share, ``limits.py`` what a request may ask for, ``security.py`` who may ask.
"""
