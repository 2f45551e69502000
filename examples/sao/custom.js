// Sends the session to a bus on another port or host ([bus] url_host), because
// the web client of 8.0 and later does not. Copy it beside the index.html of the
// web client, which loads it. The bus has to allow the origin: [web] cors.
jQuery.ajaxPrefilter(function(options) {
    'use strict';
    let session = Sao.Session.current_session;
    if (!session || !session.bus_url_host) {
        return;
    }
    let bus = new URL(`${session.database}/bus`, session.bus_url_host);
    if (options.url == bus.href) {
        options.xhrFields = {...options.xhrFields, withCredentials: true};
    }
});
