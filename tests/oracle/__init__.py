"""What a correct proxy may do, as a plain-Python model of the two end points of each connection, and a fuzz against it.

Written from RFC 9293, 7323, 2018, 5961 and SPLICE.md, not from the kernels, and it imports none of them. Numbers are
*positions*: an end's SYN has position 0, its first octet 1, whatever its initial number, and positions never wrap.
"""
