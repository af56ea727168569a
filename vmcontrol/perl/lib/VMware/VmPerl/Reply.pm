package VMware::VmPerl::Reply;

# Reads one <exec> reply. Strict and small on purpose: replies have elements, attributes, text, the five
# predefined entities and character references, and nothing else. A DOCTYPE, an entity of its own, a
# comment, a CDATA section or a processing instruction is no reply of this server and is refused, so
# nothing can be expanded or fetched.
#
# An element is { name, attributes => {...}, children => [...], text }. Texts are UTF-8 octets.

use strict;
use warnings;

use VMware::VmPerl::Constants ();

our $VERSION = '1.0.0';

# Deeper than any reply is.
my $MAX_DEPTH = 32;

my $NAME = qr/[A-Za-z_][A-Za-z0-9_.-]*/;
my %ENTITY = (amp => '&', lt => '<', gt => '>', quot => '"', apos => "'");

sub _garbage { my ($why) = @_; return VMware::VmPerl::Constants::fail('GARBAGE', $why) }

# A request: the operation's name, then pairs of element name and value; a value that is a reference
# is XML already.
sub request {
    my ($op, @pairs) = @_;
    my $in = '';
    while (my ($name, $value) = splice @pairs, 0, 2) {
        $in .= "<$name>" . (ref $value ? $$value : escape($name, $value)) . "</$name>";
    }
    return "<exec><op>$op</op><in>$in</in></exec>";
}

# A value as the text of an element: UTF-8, nothing that XML cannot carry.
sub escape {
    my ($name, $value) = @_;
    my $bytes = octets($name, $value);
    VMware::VmPerl::Constants::fail('INVALIDARGS', "$name: a character that XML cannot carry")
        if $bytes =~ /[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]/;
    $bytes =~ s/&/&amp;/g;
    $bytes =~ s/</&lt;/g;
    $bytes =~ s/>/&gt;/g;
    $bytes =~ s/\r/&#13;/g;
    return $bytes;
}

# A string of the script as UTF-8 octets. Perl does not say what a string is. One with characters above 255, or that
# Perl keeps as UTF-8 itself, is characters; so is one that would be no UTF-8 as octets, such as "\x{e4}". Only what is
# left is octets: what a script has read from a file or its command line, or from us.
sub octets {
    my ($name, $value) = @_;
    VMware::VmPerl::Constants::fail('INVALIDARGS', "$name is not defined") if !defined $value;
    my $bytes = "$value";
    my $octets = $bytes;
    if (utf8::is_utf8($bytes) || !utf8::decode($octets)) {
        utf8::encode($bytes);
    }
    # Not the built-in utf8::decode alone: it is the lax form, which takes surrogates too.
    my $copy = $bytes;
    VMware::VmPerl::Constants::fail('INVALIDARGS', "$name is not valid UTF-8")
        if !utf8::decode($copy) || $copy =~ /[\x{d800}-\x{dfff}]|[^\x{0}-\x{10ffff}]/;
    return $bytes;
}

# The root element of a document.
sub parse {
    my ($text) = @_;
    my $copy = $text;
    _garbage('not valid UTF-8') if !utf8::decode($copy);
    undef $copy;
    my ($root, @open);
    $text =~ /\G[\s\0]+/gc;
    while (1) {
        if ($text =~ /\G<($NAME)((?:\s+$NAME\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>/gc) {
            my ($name, $attributes, $empty) = ($1, $2, $3);
            my $element = { name => $name, attributes => {}, children => [], text => '' };
            while ($attributes =~ /($NAME)\s*=\s*(?:"([^"]*)"|'([^']*)')/g) {
                my ($key, $value) = ($1, defined $2 ? $2 : $3);
                _garbage("attribute $key twice") if exists $element->{attributes}{$key};
                $element->{attributes}{$key} = _text($value);
            }
            if    (@open)  { push @{ $open[-1]{children} }, $element }
            elsif ($root)  { _garbage('more than one document') }
            else           { $root = $element }
            if (!$empty) {
                push @open, $element;
                _garbage("nested deeper than $MAX_DEPTH") if @open > $MAX_DEPTH;
            }
        }
        elsif ($text =~ /\G<\/($NAME)\s*>/gc) {
            my $name = $1;
            my $element = pop @open;
            _garbage("</$name> closes nothing") if !$element || $element->{name} ne $name;
        }
        elsif ($text =~ /\G([^<]+)/gc) {
            my $piece = $1;
            if (@open) { $open[-1]{text} .= _text($piece) }
            elsif ($piece =~ /[^\s\0]/) { _garbage('text outside the document') }
        }
        else {
            last;
        }
    }
    my $at = pos($text) || 0;
    _garbage("unexpected markup at byte $at") if $at < length $text;
    _garbage('the document does not end') if @open || !$root;
    return $root;
}

sub _text {
    my ($text) = @_;
    return $text if index($text, '&') < 0;
    $text =~ s{&(?:(\#x[0-9A-Fa-f]{1,6}|\#[0-9]{1,7}|[a-z]{2,4});)?}{ _reference($1) }ge;
    return $text;
}

sub _reference {
    my ($name) = @_;
    _garbage('a bare &') if !defined $name;
    if ($name =~ /^\#(x?)(.+)/) {
        my $number = $1 ? hex $2 : $2;
        _garbage("character &$name;")
            if $number > 0x10ffff || ($number >= 0xd800 && $number <= 0xdfff)
            || ($number < 32 && $number != 9 && $number != 10 && $number != 13);
        my $character = chr $number;
        utf8::encode($character);
        return $character;
    }
    _garbage("entity &$name;") if !exists $ENTITY{$name};
    return $ENTITY{$name};
}

# The `out` element of a reply that reports success; a reply that reports failure ends the call with
# the number and text it carries.
sub out {
    my ($text) = @_;
    my $root = parse($text);
    _garbage("the document is <$root->{name}>, not <exec>") if $root->{name} ne 'exec';
    my $code = child($root, 'returncode');
    _garbage('no return code') if !$code || $code->{text} !~ /^[01]$/;
    if ($code->{text} eq '0') {
        my $errors = child($root, 'errors');
        my $error = $errors && child($errors, 'error');
        VMware::VmPerl::Constants::fail('UNSPECIFIED') if !$error;
        my ($number, $words) = ($error->{attributes}{code}, $error->{text});
        $number = -999 if !defined $number || $number !~ /^-[0-9]{1,3}$/;
        $number = -999 if !VMware::VmPerl::Constants::is_error($number + 0);
        $words = VMware::VmPerl::Constants::base_text($number + 0) if !length $words;
        VMware::VmPerl::Constants::fail_with($number + 0, $words);
    }
    return child($root, 'out') || _garbage('no out element');
}

# The first child of a name.
sub child {
    my ($element, $name) = @_;
    for my $child (@{ $element->{children} }) {
        return $child if $child->{name} eq $name;
    }
    return;
}

# All children of a name.
sub children {
    my ($element, $name) = @_;
    return grep { $_->{name} eq $name } @{ $element->{children} };
}

# The text at a path of names below an element; missing is an error of the server.
sub text {
    my ($element, @path) = @_;
    for my $name (@path) {
        $element = child($element, $name) || _garbage("no element $name");
    }
    return $element->{text};
}

# The same as a whole number.
sub number {
    my ($element, @path) = @_;
    my $text = text($element, @path);
    _garbage("$path[-1] is not a number") if $text !~ /^-?[0-9]{1,18}$/;
    return $text + 0;
}

1;

__END__

=head1 NAME

VMware::VmPerl::Reply - requests and replies as XML

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>: writes C<< <exec> >> requests and reads replies with a strict reader of its own,
so that no XML module is needed.

=cut
