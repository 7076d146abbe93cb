"""Clients one after the other in this process: nothing to start, nothing to wait for.

The same ServerApp, ClientApp and messages as under Ray or on SuperNodes; a client's records are
its own between rounds, as there.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from federated.flower import CLIENT_APP_RAISED, Run, empty_run, identify

__all__ = ["InProcessGrid", "OnReply", "error_reply"]

RUN_ID = 1

OnReply = Callable[[str, int, int], None]


class InProcessGrid(Grid):
    """Flower's grid over clients in this process.

    Parameters
    ----------
    app : ClientApp
    nodes : sequence of dict
        The configuration of each node; their numbers are 1, 2, … in this order.
    run_config : dict
        What every client gets as its run's configuration.
    on_reply : callable, optional
        Called with the type of the orders at hand, how many are done, and how many there are.

    Examples
    --------
    >>> app = ClientApp()
    >>> @app.query("hello")
    ... def hello(message, context):
    ...     return Message(RecordDict(), reply_to=message)
    >>> grid = InProcessGrid(app, [{"partition-id": 0}, {"partition-id": 1}], {})
    >>> orders = [Message(RecordDict(), n, "query.hello") for n in grid.get_node_ids()]
    >>> [reply.metadata.src_node_id for reply in grid.send_and_receive(orders)]
    [1, 2]
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[UserConfig],
        run_config: UserConfig,
        on_reply: OnReply = lambda kind, done, of: None,
    ) -> None:
        self._app, self._run_config = app, dict(run_config)
        self._contexts: dict[int, Context] = {}
        for number, config in enumerate(nodes, start=1):
            self.add_node(number, config)
        self._run = empty_run(RUN_ID)
        self._on_reply = on_reply
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        identify(RUN_ID)

    def add_node(self, number: int, config: UserConfig) -> None:
        """Add a client."""
        self._contexts[number] = Context(
            RUN_ID, number, dict(config), RecordDict(), dict(self._run_config)
        )

    def set_run(self, run: Run) -> None:
        """Set what :attr:`run` tells."""
        self._run = run

    @property
    def run(self) -> Run:
        """What Flower tells of a run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Numbers of the nodes, ascending."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the clients do what the messages ask, and keep their replies."""
        numbers = []
        for reply in self.send_and_receive(messages):
            number = str(next(self._numbers))
            self._replies[number] = reply
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand over replies, once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Iterable[Message]:
        """Have the clients do what the messages ask; nobody waits, so ``timeout`` is not needed."""
        orders, replies = list(messages), []
        for message in orders:
            replies.append(self.call(message))
            self._on_reply(message.metadata.message_type, len(replies), len(orders))
        return replies

    def call(self, message: Message) -> Message:
        """Call a client; what it raises becomes an error message, as on a node of its own."""
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            return error_reply(message, error)


def error_reply(message: Message, error: Exception) -> Message:
    """Answer that a client has raised something."""
    reason = "".join(traceback.format_exception_only(error)).strip()
    return Message(Error(CLIENT_APP_RAISED, reason), reply_to=message)
