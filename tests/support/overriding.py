"""A subclass of the bus, as another module would define it."""
import trytond_fastbus


class Bus(trytond_fastbus.Bus):
    "Marks all values that pass through one of its methods"

    published = []

    @classmethod
    def publish(cls, channel, message):
        cls.published.append(channel)
        message['published'] = cls.__name__
        return super().publish(channel, message)

    @classmethod
    def subscribe(cls, database, channels, last_message=None):
        return {
            **super().subscribe(database, channels, last_message),
            'subscribed': cls.__name__}

    @classmethod
    def create_response(cls, channel, message):
        return {**super().create_response(channel, message), 'created': 1}


class Responding(trytond_fastbus.Bus):
    "Makes responses of its own"

    @classmethod
    def create_response(cls, channel, message):
        return {**super().create_response(channel, message), 'created': 1}
