"""Which operators the models of torchvision, timm and transformers call that have no rule, in how
many models, and how many positions stay because of them. Models are traced and analysed, no more.

    python -m tools.operators --only timm --name 'resn*'
    python -m tools.operators table

What each model calls is one line of the file of records. A run that is started again goes on where
the last one stopped.
"""
