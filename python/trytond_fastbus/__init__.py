"""A drop-in replacement for trytond.bus, the message bus of Tryton."""
