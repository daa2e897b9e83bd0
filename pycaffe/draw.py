"""Pictures of nets, under Caffe's names; needs pydot (`pip install 'torrefy[draw]'`)."""

from trainer.drawing import draw_net as draw_net
from trainer.drawing import draw_net_to_file as draw_net_to_file
from trainer.drawing import get_pydot_graph as get_pydot_graph
