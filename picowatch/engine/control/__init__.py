"""ControlNets: the maps that they follow, their weights, and what they add to a UNet."""
