"""A user's file: small networks with one odd thing each, and odd datasets."""
# ruff: noqa: N802 (functions that stand for classes)

import dataclasses
import threading
from collections import namedtuple

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, rnn

Pair = namedtuple("Pair", ["logits", "features"])


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def features(self, x):
        return torch.relu(self.inner(torch.relu(self.stem(x)))).mean((2, 3))

    def forward(self, x):
        return self.after(self.head(self.features(x)), x)

    def after(self, y, x):
        return y


class Logarithm(Net):
    def forward(self, x):
        return super().forward(torch.log(x))


class NotANumber(Net):
    def after(self, y, x):
        return y / (y - y)


class Infinite(Net):
    def after(self, y, x):
        return y.masked_fill(y > 0, float("-inf"))


class Tiny(Net):
    def after(self, y, x):
        return y * 1e-12


class Constant(Net):
    def after(self, y, x):
        return y * 0


class Complex(Net):
    def after(self, y, x):
        return torch.complex(y, -y)


class Whole(Net):
    def after(self, y, x):
        return y.argmax(1)


class Named(Net):
    def after(self, y, x):
        return Pair(y, y.relu())


class Maximum(Net):
    def after(self, y, x):
        return y.max(1)


class Data(Net):
    def after(self, y, x):
        return Output(y, y.relu())


class Nothing(Net):
    def after(self, y, x):
        return None


class Words(Net):
    def after(self, y, x):
        return "a cat"


class Lazily(Net):
    def after(self, y, x):
        return (row for row in y)


class Slashes(Net):
    def __init__(self):
        super().__init__()
        self.add_module("block/1", nn.Conv2d(8, 8, 1))

    def features(self, x):
        return self._modules["block/1"](torch.relu(self.stem(x))).mean((2, 3))


class Empty(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("expanded", torch.ones(1).expand(8))

    def features(self, x):
        return super().features(x) * self.expanded


class WeightNorm(Net):
    def __init__(self):
        super().__init__()
        parametrizations.weight_norm(self.inner)
        nn.utils.weight_norm(self.stem)


class SpectralNorm(Net):
    def __init__(self):
        super().__init__()
        parametrizations.spectral_norm(self.inner)
        nn.utils.spectral_norm(self.stem)


class Orthogonal(Net):
    def __init__(self):
        super().__init__()
        parametrizations.orthogonal(self.head)


class Masked(Net):
    def __init__(self):
        super().__init__()
        prune.ln_structured(self.inner, "weight", 0.5, n=2, dim=0)


def Half():
    return Net().half()


def BFloat():
    return Net().bfloat16()


def Double():
    return Net().double()


class Mixed(Net):
    def __init__(self):
        super().__init__()
        self.head.half()

    def forward(self, x):
        return self.head(self.features(x).half())


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.kept = []
        self.inner.register_forward_hook(lambda m, i, o: self.kept.append(o))


class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Itself(Net):
    def features(self, x):
        return self.features(x)


class Raises(Net):
    def after(self, y, x):
        raise KeyError("no such key")


class Exits(Net):
    def after(self, y, x):
        raise SystemExit(3)


class Hungry(Net):
    def after(self, y, x):
        return y + torch.empty(10**14)


class Overwrites(Net):
    def forward(self, x):
        x.mul_(2)
        return super().forward(x)


class Item(Net):
    def after(self, y, x):
        return y * self.head.weight.max().item()


class Branch(Net):
    def after(self, y, x):
        return y if y.sum() > 0 else -y


class Loop(Net):
    def after(self, y, x):
        for _ in range(int(y.abs().sum()) % 3 + 1):
            y = self.head.bias + y
        return y


class Drops(Net):
    def after(self, y, x):
        return nn.functional.dropout(y, 0.5, training=True)


class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(4)


def Meta():
    return Net().to("meta")


class Parameterless(nn.Module):
    def forward(self, x):
        return x.relu()


def Compiled():
    return torch.compile(Net())


def Parallel():
    return nn.DataParallel(Net())


class Scripted(Net):
    def __init__(self):
        super().__init__()
        self.inner = torch.jit.script(self.inner)


class Sparse(Net):
    def __init__(self):
        super().__init__()
        self.head.weight = nn.Parameter(self.head.weight.detach().to_sparse())


class Missing(Net):
    def __getattr__(self, name):
        return getattr(self, name + "_")


class Scaled(Net):
    def forward(self, x, scale):
        return super().forward(x) * scale


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x, lengths):
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class NoOnnx(Net):
    """No exporter to ONNX knows the Bessel function."""

    def after(self, y, x):
        return torch.special.bessel_j1(y)


class Flat(Net):
    def after(self, y, x):
        return y.mean(1)


# -- datasets --------------------------------------------------------------------------------------


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index >= 24:
            raise IndexError
        return self.sample(index)

    def sample(self, index):
        return torch.ones(3, 8, 8) * index, index % 4


class Unequal(Samples):
    def sample(self, index):
        return torch.ones(3, 8, 8 + index % 3), index % 4


class Dictionaries(Samples):
    def sample(self, index):
        return {"x": torch.ones(3, 8, 8) * index}


class NoTargets(Samples):
    def sample(self, index):
        return torch.ones(3, 8, 8) * index


class NotNumbers(Samples):
    def sample(self, index):
        return torch.full((3, 8, 8), torch.nan), index % 4


class Infinities(Samples):
    def sample(self, index):
        return torch.full((3, 8, 8), torch.inf), index % 4


class Numbers(Samples):
    def sample(self, index):
        return torch.ones(3, 8, 8) * index, index / 24


class Nones(Samples):
    def sample(self, index):
        return None


class NoLength(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(3, 8, 8), 1)])


class Endless(Samples):
    def __len__(self):
        return 10**12


class Failing(Samples):
    def sample(self, index):
        raise OSError("the disk is on fire")
