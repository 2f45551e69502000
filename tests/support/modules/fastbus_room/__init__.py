"""A module of trytond with rooms: records that have a chat."""
from trytond.model import ChatMixin, ModelSQL, ModelView, fields
from trytond.pool import Pool, PoolMeta
from trytond.transaction import Transaction


class Room(ChatMixin, ModelSQL, ModelView):
    __name__ = 'fastbus.room'
    active = fields.Boolean("Active")
    group = fields.Many2One('res.group', "Group")
    language = fields.Char("Language")

    @staticmethod
    def default_active():
        return True


class Rule(metaclass=PoolMeta):
    __name__ = 'ir.rule'

    # As that of the module company, rules know the preferences of the user.
    @classmethod
    def _get_context(cls, model_name):
        return {
            **super()._get_context(model_name),
            'language': Transaction().context.get('language'),
            }

    @classmethod
    def _get_cache_key(cls, model_names):
        return (
            *super()._get_cache_key(model_names),
            Transaction().context.get('language'))


def register():
    Pool.register(
        Room,
        Rule,
        module='fastbus_room', type_='model')
