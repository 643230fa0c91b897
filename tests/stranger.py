"""What someone without ddnl-ray does: train on a distilled set with torch, safetensors and json alone, and score it.

For cards with a ConvNet, SGD, no augmentation and per-channel normalisation:
    python stranger.py CARD TEST.safetensors        (images in [0, 1], labels)
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

torch.manual_seed(0)
folder = Path(sys.argv[1])
card, test = json.loads((folder / "card.json").read_text()), load_file(sys.argv[2])
tensors, recipe = load_file(folder / card["images"]["file"]), card["evaluation"]
x, y, (_, channels, size, _) = tensors["images"], tensors["labels"], card["images"]["shape"]
mean, std = (torch.tensor(card["transform"][name])[:, None, None] for name in ("mean", "std"))
depth, width, accuracies = int(card["network"]["name"][-1]), card["network"]["width"] or 128, []
for _ in range(3):
    layers: list[nn.Module] = []
    for i in range(depth):
        convolution = nn.Conv2d(width if i else channels, width, 3, padding=1)
        layers += [convolution, nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (size >> depth) ** 2, len(card["classes"])))
    lr, drop = recipe["lr"] or card["step_size"], (recipe["epochs"] - 1) // 2 + 2
    for epoch in range(1, recipe["epochs"] + 1):
        if epoch in (1, drop + 1):
            rate = lr if epoch == 1 else lr / 10
            momentum, decay = recipe["momentum"], recipe["weight_decay"]
            optimizer = torch.optim.SGD(model.parameters(), rate, momentum, weight_decay=decay)
        for rows in torch.randperm(len(x)).split(recipe["batch_size"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    guesses = model((test["images"] - mean) / std).argmax(1)
    accuracies.append((guesses == test["labels"]).float().mean().item())
print(json.dumps(accuracies))
