"""The systems that ViLBERT was compared with (Lu et al. 2019, table 1): SCAN, DFAF, MAttNet and R2C, one file each."""
