"""What a picture says of itself to any reader: that its colour was added by an algorithm, by which, and from what.

An XMP packet with IPTC's Digital Source Type. ``compositeWithTrainedAlgorithmicMedia`` is its term for media that a
trained model augmented, which is the most that can be said of a scan whose chroma a network predicted.

References
----------
IPTC Photo Metadata Standard 2023.2, "Digital Source Type"; its terms: http://cv.iptc.org/newscodes/digitalsourcetype/.
ISO 16684-1:2019 (XMP); Adobe XMP Specification Part 3, "Storage in Files": TIFF tag 700.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>{software}</xmp:CreatorTool>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
   <dc:source>{source}</dc:source>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def xmp_packet(software: str, description: str, source: str) -> bytes:
    """The packet, UTF-8; no time stamp, so that the same scan gives the same bytes.

    Parameters
    ----------
    software : with its version and the model
    description : for people
    source : what the scan is, such as its name and hash
    """
    fields = {"software": software, "description": description, "source": source, "source_type": SOURCE_TYPE}
    return _PACKET.format(**{name: escape(value) for name, value in fields.items()}).encode()
