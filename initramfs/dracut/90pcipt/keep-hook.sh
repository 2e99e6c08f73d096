#!/bin/sh
sh /usr/lib/pcipt/keep.sh
