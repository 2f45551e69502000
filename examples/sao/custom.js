// Send the session to a bus on another port or host ([bus] url_host), which
// the web client of 8.0 and later does not do by itself. Belongs next to its
// index.html, which loads it. The bus has to allow it: [web] cors.
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
