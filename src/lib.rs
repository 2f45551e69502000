//! A message bus for the Tryton server.
