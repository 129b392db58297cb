"""What autograd recorded of a model."""

from torch import Tensor


def operations(output: Tensor) -> list[str]:
    """The class names of all operations behind `output`, each operation once."""
    nodes, found = [output.grad_fn], set()
    while nodes:
        if (node := nodes.pop()) is not None and node not in found:
            found.add(node)
            nodes += [following for following, _ in node.next_functions]
    return [type(node).__name__ for node in found]
