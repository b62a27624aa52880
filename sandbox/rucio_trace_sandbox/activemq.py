"""ActiveMQ, to which Rucio's Hermes sends its messages, speaking STOMP to this machine alone."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import stomp
from stomp.listener import WaitingListener

from .processes import Server, first_user, free_port, give, program
from .webdav import listens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ActiveMQ", "Inbox"]

JAR = "/usr/share/activemq/bin/activemq.jar"
USER, PASSWORD = "rucio", "sandbox"
DESTINATION = "/topic/rucio.events"

_CONFIG = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
       xsi:schemaLocation="http://www.springframework.org/schema/beans
                           http://www.springframework.org/schema/beans/spring-beans.xsd
                           http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="sandbox" useJmx="false" persistent="false">
    <plugins><simpleAuthenticationPlugin anonymousAccessAllowed="false"><users>
      <authenticationUser username="{user}" password="{password}" groups="rucio"/>
    </users></simpleAuthenticationPlugin></plugins>
    <transportConnectors><transportConnector name="stomp" uri="stomp://127.0.0.1:{port}"/></transportConnectors>
  </broker>
</beans>
"""


class Inbox(stomp.ConnectionListener):  # type: ignore[misc]
    """What a subscriber has received, oldest first: the bodies as Hermes wrote them."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def on_message(self, frame: Any) -> None:
        self.messages.append(json.loads(frame.body))


class ActiveMQ:
    """A broker that can be stopped and started again on its port."""

    def __init__(self, folder: Path, port: int, user: str | None) -> None:
        self.folder, self.port, self.user = folder, port, user
        self.server: Server | None = None

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[ActiveMQ]:
        """Run a broker whose configuration and log lie in *folder*."""
        folder.mkdir(parents=True)
        broker = cls(folder, free_port(), first_user("activemq", "nobody"))
        config = _CONFIG.format(user=USER, password=PASSWORD, port=broker.port)
        (folder / "activemq.xml").write_text(config)
        give(folder, broker.user)
        broker.up()
        try:
            yield broker
        finally:
            broker.down()

    def up(self) -> None:
        """Start the broker; return once it listens."""
        options = dict.fromkeys(("base", "conf", "data"), self.folder) | {"home": "/usr/share/activemq"}
        # It lives for seconds: a compiler that begins sooner, and one collector thread.
        argv = [program("java", "activemq"), "-Xmx128M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        argv += [f"-Djava.io.tmpdir={self.folder}", *(f"-Dactivemq.{name}={value}" for name, value in options.items())]
        argv += ["-jar", JAR, "start", f"xbean:file:{self.folder}/activemq.xml"]
        self.server = Server("activemq", argv, log=self.folder / "log", user=self.user, cwd=self.folder)
        self.server.wait_until_ready(partial(listens, self.port), seconds=60)

    def down(self) -> None:
        """Stop the broker; what it held is gone."""
        if self.server is not None:
            self.server.stop()
            self.server = None

    @contextlib.contextmanager
    def subscribed(self) -> Iterator[Inbox]:
        """Subscribe to where Hermes sends to."""
        connection, inbox = stomp.Connection12([("127.0.0.1", self.port)]), Inbox()
        receipt = WaitingListener("subscribed")
        connection.set_listener("inbox", inbox)
        connection.set_listener("receipt", receipt)
        connection.connect(USER, PASSWORD, wait=True)
        connection.subscribe(DESTINATION, id="inbox", headers={"receipt": "subscribed"})
        receipt.wait_on_receipt()
        try:
            yield inbox
        finally:
            with contextlib.suppress(stomp.exception.StompException):
                connection.disconnect()

    @property
    def rucio_sections(self) -> dict[str, dict[str, object]]:
        """What Hermes wants in rucio.cfg."""
        return {
            "hermes": {"services_list": "activemq"},
            "messaging-hermes": {
                "brokers": "127.0.0.1",
                "use_ssl": "False",
                "port": self.port,
                "nonssl_port": self.port,
                "broker_virtual_host": "/",
                "username": USER,
                "password": PASSWORD,
                "destination": DESTINATION,
            },
        }
