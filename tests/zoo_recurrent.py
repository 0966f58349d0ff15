"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from zoo_member import member, net, real, second, words


@member(real(7, 5), channels=(6, 8))
def lstm() -> nn.Module:
    """Both layers lose the same units: one tensor holds their states, and both are read."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y, (h, c) = m.lstm(m.embed(x).relu())
        return m.head(y[:, -1] + h[0] * c[1].tanh())

    return net(
        forward,
        embed=nn.Linear(5, 6),
        lstm=nn.LSTM(6, 8, num_layers=2, batch_first=True),
        head=nn.Linear(8, 4),
    )


@member(real(7, 5), channels=(8, 8, 8))
def lstm_encoder() -> nn.Module:
    """Each layer loses units of its own, but as many: only the last one's states are read."""

    def forward(m: Any, x: Tensor) -> Tensor:
        _, (h, _) = m.lstm(x)
        e = m.head(h[-1])
        return e / e.norm(dim=1, keepdim=True)

    return net(
        forward,
        lstm=nn.LSTM(5, 8, num_layers=3, batch_first=True),
        head=nn.Linear(8, 4),
    )


@member(second(7, 5), channels=(8, 8, 8, 8))
def gru_both_ways() -> nn.Module:
    """Each direction loses units of its own."""
    return net(
        lambda m, x: m.head(m.gru(x)[0]).mean(0),
        gru=nn.GRU(5, 8, num_layers=2, bidirectional=True),
        head=nn.Linear(16, 4),
    )


@member(words(11, 7), channels=(6, 8, 8, 8))
def lstm_bidirectional() -> nn.Module:
    """The last layer's directions lose the same units, since one tensor holds their states."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y, (h, _) = m.lstm(m.embed(x))
        return m.head(y.mean(1)) + m.state(torch.cat([h[-2], h[-1]], 1))

    return net(
        forward,
        embed=nn.Embedding(11, 6),
        lstm=nn.LSTM(6, 8, num_layers=2, batch_first=True, bidirectional=True),
        head=nn.Linear(16, 4),
        state=nn.Linear(16, 4),
    )


@member(second(7, 5), channels=(6, *(5,) * 4, *(3,) * 4))
def lstm_projected() -> nn.Module:
    """PyTorch knows a projection by its being narrower: 3 of the 8 hidden units stay."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y, _ = m.lstm(m.embed(x))
        return m.head(y.relu())

    return net(
        forward,
        embed=nn.Linear(5, 6),
        lstm=nn.LSTM(6, 8, num_layers=2, proj_size=3, bidirectional=True),
        head=nn.Linear(6, 4),
    )


@member(real(5, 6), channels=(4, 8, 3))
def lstm_given_states() -> nn.Module:
    """The first state comes from a layer, and dropping its channels drops hidden units."""

    def forward(m: Any, x: Tensor) -> Tensor:
        state = m.start(x[:, 0]).tanh().unsqueeze(0)
        y, _ = m.lstm(m.narrow(x), (state, torch.zeros_like(state)))
        return m.head(m.conv(y.transpose(1, 2)).relu().amax(2))

    return net(
        forward,
        start=nn.Linear(6, 8),
        narrow=nn.Linear(6, 4, bias=False),
        lstm=nn.LSTM(4, 8, bias=False, batch_first=True),
        conv=nn.Conv1d(8, 3, 2),
        head=nn.Linear(3, 4),
    )


@member(second(7, 5), channels=(6, 8))
def gru() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y, h = m.gru(m.embed(x))
        return m.head(y)[-1] + m.head(h.view(2, 2, -1, 8)[1].permute(1, 0, 2).flatten(1))

    return net(
        forward,
        embed=nn.Linear(5, 6),
        gru=nn.GRU(6, 8, num_layers=2, bidirectional=True),
        head=nn.Linear(16, 4),
    )


@member(real(7, 5), channels=(6, 8))
def plain_rnns() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x, _ = m.tanh(x)
        x, _ = m.relu(x)
        return m.head(x)

    return net(
        forward,
        tanh=nn.RNN(5, 6, batch_first=True),
        relu=nn.RNN(6, 8, nonlinearity="relu", batch_first=True),
        head=nn.Linear(8, 4),
    )


@member(real(6, 5), channels=(10, 7, 8))
def recurrent_cells() -> nn.Module:
    """Cells in a loop."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 8)
        g = x.new_zeros(x.shape[0], 7)
        for step in m.embed(x).unbind(1):
            h, c = m.lstm(step, (h, c))
            g = m.gru(h, g)
        return m.head(g)

    return net(
        forward,
        embed=nn.Linear(5, 10),
        lstm=nn.LSTMCell(10, 8),
        gru=nn.GRUCell(8, 7),
        head=nn.Linear(7, 4),
    )
