"""The addresses of clients, to which trytond binds sessions from 7.8 on.

They are compared as addresses, not as texts, because a socket of both families
has 192.0.2.1 as ::ffff:192.0.2.1. trytond and the bus server may see different
addresses of the same host, if a client or a proxy reaches both by `localhost`,
or one of them by a unix socket.
"""
from ipaddress import ip_address

# The addresses by which trytond knows a client of its own host
LOCAL = [None, '127.0.0.1', '::1', '::ffff:127.0.0.1']


def is_same(opened, address, is_local):
    """Whether a session that was opened from one address, or from None,
    belongs to a client at another address. is_local is whether the client's
    connection comes from this host and not through a proxy of num_proxies.

    Raises ValueError if the address of the client is invalid.
    """
    address = _read(address)
    opened = _read(opened)
    return opened == address or (
        is_local and (opened is None or opened.is_loopback))


def candidates(address, is_local):
    """The addresses by which trytond may know a client.

    Raises ValueError if its address is invalid.
    """
    read = _read(address)
    texts = [address]
    if read and read.version == 4:
        texts.append('::ffff:%s' % read)
    if is_local:
        texts += LOCAL
    return list(dict.fromkeys(texts))


def _read(text):
    if not text:
        return None
    # The zone of a link-local address, such as %eth0, is known only to some
    # servers and proxies.
    address = ip_address(text.partition('%')[0])
    return getattr(address, 'ipv4_mapped', None) or address
