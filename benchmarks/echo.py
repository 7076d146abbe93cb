"""A ClientApp that trains nothing, so that only the framework costs: weights come, weights go."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from federated.messages import answer, read_order
from federated.policy import State
from federated.tasks.task import TEST, VALIDATION

__all__ = ["app", "echo", "name_of"]

app = ClientApp()


def name_of(number: int) -> str:
    """The client of a node."""
    return f"client-{number:04d}"


def echo(number: int, received: State) -> State:
    """What client ``number`` sends back: a little of its own, so that a lost reply would show."""
    return {name: value + 1e-4 * (number + 1) for name, value in received.items()}


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Tell who is there."""
    return Message(answer(name_of(_number(context)), 0, 0, {}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Send back what came."""
    number = _number(context)
    round_, received, _ = read_order(message)
    content = answer(
        name_of(number), round_, 2, {"loss": 0.0, "steps": 1.0}, echo(number, received)
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measures that nobody has measured; the server wants them of each part."""
    round_, _, _ = read_order(message)
    measures = {f"{VALIDATION}/examples": 0.0, f"{TEST}/examples": 1.0}
    for part in (VALIDATION, TEST):
        measures |= {f"{part}/{name}": 0.5 for name in ("loss", "accuracy", "auroc")}
    content = answer(name_of(_number(context)), round_, 0, measures)
    return Message(content, reply_to=message)


def _number(context: Context) -> int:
    return int(context.node_config["partition-id"])
