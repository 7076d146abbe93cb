"""What the models share: features of a sequence, dropout, a linear head."""

from torch import Tensor, nn


class SequenceModel(nn.Module):
    """A model whose logits are ``head(dropout(features(x, lengths)))``.

    Attributes
    ----------
    dropout : torch.nn.Dropout
    head : torch.nn.Linear
        From F features to the logits.
    """

    dropout: nn.Dropout
    head: nn.Linear

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head sees of a sequence.

        Parameters
        ----------
        x
            One-hot sequences (N, 4, L).
        lengths
            As for `forward`.

        Returns
        -------
        Tensor
            Shape (N, F).
        """
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of one-hot sequences.

        Parameters
        ----------
        x
            Shape (N, 4, L).
        lengths
            Valid bases of each sequence, integers of shape (N,), where the batch is padded at
            the end.

        Returns
        -------
        Tensor
            Shape (N, outputs).

        Raises
        ------
        ValueError
            For another shape, or a sequence too short for the model.
        """
        logits: Tensor = self.head(self.dropout(self.features(x, lengths)))
        return logits
