import os
from pathlib import Path

# None of these tests speaks with the world; to read the certificates that it is known by takes 50 ms each time.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parents[1] / "vectors/pki/root.pem")
