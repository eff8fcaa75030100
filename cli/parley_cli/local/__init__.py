"""The whole system on this machine: what `parley up`, `parley down` and `parley status` do."""
