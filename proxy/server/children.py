"""Which processes a gateway has, and what runs in each."""

import pkgutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.server.contexts import AdminContext, Child, Parts, WorkerContext
from proxy.sources import refresh

if TYPE_CHECKING:
    from proxy.server.supervisor import Supervisor


def children_of(supervisor: "Supervisor", parts: Parts) -> list[Child]:
    """In the order in which they are started."""
    found: list[Child] = []
    if supervisor.demo_address is not None:
        serve, address = pkgutil.resolve_name(parts.demo), str(supervisor.demo_address)
        found.append(Child("demo", lambda ready, channel: serve(address) or 0))
    if supervisor.listening.admin is not None:
        admin_main = pkgutil.resolve_name(parts.admin)
        admin_socket = supervisor.listening.admin
        found.append(
            Child(
                "admin",
                lambda ready, channel: admin_main(
                    AdminContext(
                        supervisor.config,
                        admin_socket,
                        supervisor.scoreboard,
                        supervisor.control_directory,
                        ready,
                        supervisor.quarantine,
                    )
                ),
            )
        )
    main = pkgutil.resolve_name(parts.worker)
    gateway = pkgutil.resolve_name(parts.gateway)
    watch = pkgutil.resolve_name(parts.watcher)

    def watcher(ready: Callable[[], None], channel: socket.socket) -> int:
        ready()
        status: int = watch(supervisor.reloading.watched, supervisor.reloading.looked, channel)
        return status

    found.append(Child("watcher", watcher, wanted=lambda: supervisor.config.reload.watch))

    def sources(ready: Callable[[], None], channel: socket.socket) -> int:
        ready()
        # What is new is in the store by then, and accepted: the reload's preparer finds it there.
        return refresh.run(supervisor.config, lambda names: channel.send(b"changed\n"))

    found.append(Child("sources", sources, wanted=lambda: refresh.needed(supervisor.config)))
    for slot in range(supervisor.slots):
        sockets = supervisor.listening.of(slot)

        def body(
            ready: Callable[[], None],
            channel: socket.socket,
            slot: int = slot,
            sockets: list[socket.socket] = sockets,
        ) -> int:
            context = WorkerContext(
                slot, supervisor.first, gateway, sockets, supervisor.control_directory, ready,
                lambda: supervisor.scoreboard.beat(slot), supervisor.quarantine, channel, supervisor.reloading.memory,
            )  # fmt: skip
            status: int = main(context)
            return status

        found.append(Child(f"worker {slot}", body, slot))
    return found
