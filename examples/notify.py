"""An additional route that sends a notification. Load it into trytond with

    [wsgi middleware]
    demo = notify.demo
"""
from trytond.protocols.wrappers import Response, with_pool, with_transaction


def demo(wsgi_app):
    "Add POST /<database_name>/demo/notify, for logged-in users"
    from trytond.wsgi import app

    app.route('/<string:database_name>/demo/notify', methods=['POST'])(
        app.auth_required(with_pool(
                with_transaction(readonly=False)(notify))))
    return wsgi_app


def notify(request, pool):
    "Notify the user of the request when the transaction commits"
    from trytond import bus

    message = request.parsed_data
    bus.notify(
        message['title'], message.get('body'),
        user=request.user_id, client=message.get('client'))
    return Response('{}', content_type='application/json')
