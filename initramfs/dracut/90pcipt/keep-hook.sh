#!/bin/sh
sh /usr/lib/pcipt/boot.sh
