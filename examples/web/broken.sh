#!/bin/sh
# A release of web that cannot start: the program of the image web:1.2-broken.
echo "web ${BATON_VERSION}: starting" >&2
echo 'FATAL cannot read /etc/shop.conf' >&2
exit 3
