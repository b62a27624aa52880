"""What a producer does: read a file once, sign that it was made, and give both to Rucio.

`declare` needs no Rucio; `upload` and `download` (imported when they are used) work through Rucio's own clients.
"""

from rucio_trace.producer.declare import CHECKSUMS, Declared, Producer, declare

__all__ = ["CHECKSUMS", "Declared", "Producer", "declare"]
