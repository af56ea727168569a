# The reader of replies: what it takes, and above all what it refuses.
use strict;
use warnings;
use Test::More;

use VMware::VmPerl::Reply;

my $PRODUCT = '<product id="GSX"><title>VMware Server</title></product>';

sub outcome {
    my ($text) = @_;
    my $out = eval { VMware::VmPerl::Reply::out($text) };
    return ref $@ ? $@ : $out;
}

sub refused {
    my ($text, $code, $like, $what) = @_;
    my $failure = outcome($text);
    isa_ok($failure, 'VMware::VmPerl::Failure', $what) or return;
    is($failure->[0], $code, "$what: number");
    like($failure->[1], $like, "$what: text");
    return;
}

my $out = outcome("<exec>$PRODUCT<returncode>1</returncode><out><a>x &lt;&amp;&gt;&quot;&apos; &#13;&#x20AC;</a><b/></out></exec>");
is(VMware::VmPerl::Reply::text($out, 'a'), qq(x <&>"' \r\xe2\x82\xac), 'references, as octets');
is(VMware::VmPerl::Reply::text($out, 'b'), '', 'an empty element');
is(VMware::VmPerl::Reply::text(outcome("\n\0 <exec><returncode>1</returncode><out  ><a>1\n2</a ></out></exec>\n"), 'a'), "1\n2", 'white space');

sub error { my ($error) = @_; return "<exec>$PRODUCT<returncode>0</returncode>$error<out/></exec>" }
refused(error('<errors><error code="-8">No &amp; no</error></errors>'), -8, qr/^No & no$/, 'an error as it came');
refused(error('<errors><error code="-8"/></errors>'), -8, qr/^Invalid operation for virtual machine's current state$/, 'a number without a text');
refused(error('<errors><error code="-777">x</error></errors>'), -999, qr/^x$/, 'a number that is none');
refused(error('<errors><error code="8">x</error></errors>'), -999, qr/^x$/, 'a number above 0');
refused(error('<errors><error>x</error></errors>'), -999, qr/^x$/, 'no number');
refused(error(''), -999, qr/^Unknown error$/, 'nothing at all');

my $deep = 40;
for my $case (
    [ 'nothing', '' ],
    [ 'no XML', 'hello' ],
    [ 'another root', '<html><returncode>1</returncode><out/></html>' ],
    [ 'no return code', '<exec><out/></exec>' ],
    [ 'return code 2', '<exec><returncode>2</returncode><out/></exec>' ],
    [ 'no out', '<exec><returncode>1</returncode></exec>' ],
    [ 'no end', '<exec><returncode>1</returncode><out>' ],
    [ 'crossed ends', '<exec><returncode>1</out></returncode></exec>' ],
    [ 'an end too many', '<exec><returncode>1</returncode><out/></exec></exec>' ],
    [ 'two documents', '<exec><returncode>1</returncode><out/></exec><exec/>' ],
    [ 'text behind it', '<exec><returncode>1</returncode><out/></exec>x' ],
    [ 'a DOCTYPE', '<!DOCTYPE exec [<!ENTITY a "b">]><exec><returncode>1</returncode><out/></exec>' ],
    [ 'an entity', '<exec><returncode>1</returncode><out>&a;</out></exec>' ],
    [ 'a bare ampersand', '<exec><returncode>1</returncode><out>a & b</out></exec>' ],
    [ 'character 0', '<exec><returncode>1</returncode><out>&#0;</out></exec>' ],
    [ 'a surrogate', '<exec><returncode>1</returncode><out>&#xD800;</out></exec>' ],
    [ 'a character too high', '<exec><returncode>1</returncode><out>&#x110000;</out></exec>' ],
    [ 'a processing instruction', '<?xml version="1.0"?><exec><returncode>1</returncode><out/></exec>' ],
    [ 'a comment', '<exec><!-- --><returncode>1</returncode><out/></exec>' ],
    [ 'CDATA', '<exec><returncode>1</returncode><out><![CDATA[x]]></out></exec>' ],
    [ 'an attribute twice', '<exec><returncode a="1" a="2">1</returncode><out/></exec>' ],
    [ 'an attribute without quotes', '<exec><returncode a=1>1</returncode><out/></exec>' ],
    [ 'bytes that are no UTF-8', "<exec><returncode>1</returncode><out>\xff</out></exec>" ],
    [ 'elements without end', '<exec>' . '<a>' x $deep . '</a>' x $deep . '</exec>' ],
) {
    refused($case->[1], -15, qr/^Reply not understood: ./, $case->[0]);
}

# Requests.
is(
    VMware::VmPerl::Reply::request('Op', key => "a<&>\r\n\"b", value => ''),
    "<exec><op>Op</op><in><key>a&lt;&amp;&gt;&#13;\n\"b</key><value></value></in></exec>",
    'a request escapes'
);
is(VMware::VmPerl::Reply::request('Op', key => "\x{20ac}"), "<exec><op>Op</op><in><key>\xe2\x82\xac</key></in></exec>", 'characters are encoded');
is(VMware::VmPerl::Reply::request('Op', key => "\xe2\x82\xac"), "<exec><op>Op</op><in><key>\xe2\x82\xac</key></in></exec>", 'octets are kept');
# Characters, however Perl keeps them.
my ($plain, $wide) = ("M\x{e4}rz", "M\x{e4}rz");
utf8::downgrade($plain);
utf8::upgrade($wide);
is(VMware::VmPerl::Reply::escape(key => $_), "M\xc3\xa4rz", 'characters below 256') for $plain, $wide;
is(VMware::VmPerl::Reply::escape(key => "\x{e4}\x{20ac}"), "\xc3\xa4\xe2\x82\xac", 'and others');
is($plain, "M\x{e4}rz", "the script's own string stays");
for my $case ([ 'NUL', "a\0" ], [ 'a control character', "\x1b" ], [ 'U+FFFE', "\x{fffe}" ], [ 'a surrogate', "\xed\xa0\x80" ], [ 'undef', undef ]) {
    eval { VMware::VmPerl::Reply::request('Op', key => $case->[1]) };
    is(ref $@ && $@->[0], -3, "$case->[0] in a request: -3");
}

done_testing;
